-- headgate: key=[origin, destination]
-- One row for each pair of airports, by direction.
SELECT
    origin,
    destination,
    count(*) AS flights,
    round(avg(delay), 2) AS mean_delay,
    sum(greatest(delay, 0))::BIGINT AS minutes_lost,
    min(distance) AS miles
FROM flights
GROUP BY origin, destination
