# Makes the versions of a table that test/bench/tables measures, and times what
# DuckDB alone needs to write it. Arguments: a Parquet file, or "" for made-up
# flights, a directory for the versions, and the number of rows of those.
import json
import os
import sys
import time

import duckdb

source, out, rows = sys.argv[1], sys.argv[2], int(sys.argv[3])
db = duckdb.connect()
db.execute("SET threads = 2")
db.execute("SET enable_progress_bar = false")
if source:
    db.execute("CREATE TABLE flights AS SELECT row_number() OVER () AS id, * FROM read_parquet(?)", [source])
else:
    db.execute("SELECT setseed(0.5)")
    db.execute(f"""
        CREATE TABLE flights AS SELECT i + 1 AS id, TIMESTAMP '2001-01-01' + to_minutes(i // 12) AS date,
            (random() ** 4 * 200 - 10)::BIGINT AS delay, (100 + hash(i // 7) % 2500)::BIGINT AS distance,
            chr(65 + (hash(i) % 20)::INT) || chr(65 + (hash(i) % 13)::INT) || 'X' AS origin,
            chr(65 + (hash(i + 1) % 20)::INT) || chr(65 + (hash(i + 1) % 13)::INT) || 'Y' AS destination
        FROM range({rows}) t(i)""")
n = db.execute("SELECT count(*) FROM flights").fetchone()[0]
middle, percent = n // 2, n // 100
versions = {
    "base": "SELECT * FROM flights ORDER BY id",
    "one row inserted in the middle": f"SELECT * REPLACE (id * 2 AS id) FROM flights WHERE id <= {middle} UNION ALL "
    f"SELECT * REPLACE (id * 2 + 1 AS id) FROM flights WHERE id = {middle} UNION ALL SELECT * REPLACE (id * 2 AS id) FROM flights WHERE id > {middle}",
    "base of the insertion": "SELECT * REPLACE (id * 2 AS id) FROM flights ORDER BY id",
    "1% of the rows updated, side by side": f"SELECT * REPLACE (CASE WHEN id BETWEEN {middle} AND {middle + percent} THEN delay + 1 ELSE delay END AS delay) FROM flights ORDER BY id",
    "1% of the rows appended": f"SELECT * FROM flights UNION ALL SELECT * REPLACE (id + {n} AS id) FROM flights WHERE id <= {percent}",
    "1,000 scattered rows updated": f"SELECT * REPLACE (CASE WHEN id % {max(n // 1000, 1)} = 0 THEN delay + 1 ELSE delay END AS delay) FROM flights ORDER BY id",
}
sizes = {}
for name, query in versions.items():
    path = os.path.join(out, name.replace(" ", "-").replace(",", "").replace("%", "pc") + ".parquet")
    db.execute(f"COPY ({query}) TO '{path}' (FORMAT parquet, COMPRESSION zstd)")
    sizes[name] = {"path": path, "bytes": os.path.getsize(path)}
print(json.dumps({"rows": n, "versions": sizes}))
