-- headgate: key=[iata]
-- One row for each airport that flights left from.
WITH busiest AS (
    SELECT origin AS iata, max(flights) AS flights FROM route_stats GROUP BY origin
)
SELECT
    a.iata,
    a.name,
    a.city,
    a.state,
    count(*) AS departures,
    any_value(b.flights) AS busiest_route,
    round(avg(f.delay), 2) AS mean_delay,
    round(count(*) FILTER (WHERE f.delay >= 15) / count(*), 4) AS late_share
FROM flights f
JOIN airports a ON a.iata = f.origin
JOIN busiest b ON b.iata = f.origin
GROUP BY a.iata, a.name, a.city, a.state
