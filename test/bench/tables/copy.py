# Times DuckDB's own COPY of one Parquet file to another, in a process like the
# one that an import is. Arguments: from, to.
import sys

import duckdb

db = duckdb.connect()
db.execute("SET threads = 2")
db.execute("SET enable_progress_bar = false")
db.execute("COPY (SELECT * FROM read_parquet('%s')) TO '%s' (FORMAT parquet, COMPRESSION zstd)" % (sys.argv[1], sys.argv[2]))
