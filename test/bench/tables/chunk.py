# Writes a part of a large table: the rows of a Parquet file, or made-up flights,
# with ids of their own. Arguments: that file or "", the output, the number of
# made-up rows, what is added to each id, how many rows from the middle on are
# different from what they would be, by how much, and how far behind the middle they begin.
import sys

import duckdb

source, out = sys.argv[1], sys.argv[2]
rows, offset, edited, by, behind = (int(a) for a in sys.argv[3:8])
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
first = n // 2 + behind
db.execute(
    f"COPY (SELECT * REPLACE (id + {offset} AS id, CASE WHEN id > {first} AND id <= {first + edited} THEN delay + {by} ELSE delay END AS delay) "
    f"FROM ({flights})) TO '{out}' (FORMAT parquet)"
)
print(n)
