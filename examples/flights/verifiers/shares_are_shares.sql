SELECT 'daily_delay' AS model, day::VARCHAR AS which, late_share
FROM daily_delay
WHERE NOT late_share BETWEEN 0 AND 1
UNION ALL
SELECT 'airport_delay', iata, late_share
FROM airport_delay
WHERE NOT late_share BETWEEN 0 AND 1
