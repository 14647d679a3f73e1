-- A join must not lose or double a flight: the departures of each airport are
-- exactly its flights.
SELECT
    coalesce(c.iata, f.origin) AS iata,
    c.departures AS counted,
    f.departures AS flown
FROM airport_delay c
FULL JOIN (SELECT origin, count(*) AS departures FROM flights GROUP BY origin) f
    ON f.origin = c.iata
WHERE c.departures IS DISTINCT FROM f.departures
