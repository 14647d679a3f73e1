-- Both functions saw the pandas that they declare, in one run.
SELECT * FROM busy_zones WHERE made_with <> 'pandas 1.5.3, then pandas 2.2.3'
