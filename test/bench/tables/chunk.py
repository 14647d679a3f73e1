# Writes a part of a large table: the rows of a Parquet file, or made-up flights,
# with ids of their own. Arguments: that file or "", the output, the number of
# made-up rows, what is added to each id, and how many rows in the middle are
# different from what they would be.
import sys

import duckdb

source, out = sys.argv[1], sys.argv[2]
rows, offset, edited = (int(a) for a in sys.argv[3:6])
db = duckdb.connect()
db.execute("SET threads = 2")
db.execute("SET enable_progress_bar = false")
if source:
    n = db.execute("SELECT count(*) FROM read_parquet(?)", [source]).fetchone()[0]
    flights = f"SELECT row_number() OVER () AS id, * FROM read_parquet('{source}')"
else:
    n = rows
    flights = f"""
        SELECT i + 1 AS id, TIMESTAMP '2001-01-01' + to_minutes(i // 12) AS date, (hash(i) % 190)::BIGINT - 10 AS delay,
            (100 + hash(i // 7) % 2500)::BIGINT AS distance, chr(65 + (hash(i) % 20)::INT) || chr(65 + (hash(i) % 13)::INT) || 'X' AS origin
        FROM range({rows}) t(i)"""
middle = n // 2
db.execute(
    f"COPY (SELECT * REPLACE (id + {offset} AS id, CASE WHEN id > {middle} AND id <= {middle + edited} THEN delay + 1 ELSE delay END AS delay) "
    f"FROM ({flights})) TO '{out}' (FORMAT parquet)"
)
print(n)
