-- headgate: key=[day]
-- A model is a SELECT; its file's name is its table's name. This one reads no
-- table, so it runs before you have any: one row for each day of 2026.
SELECT
    (DATE '2026-01-01' + n::INTEGER)::DATE AS day,
    dayofweek(DATE '2026-01-01' + n::INTEGER) IN (0, 6) AS weekend
FROM range(0, 365) AS days(n)
