-- headgate: key=[day]
-- One row a day: how many flights, how late, and the share that was late by
-- the Bureau's own definition (15 minutes or more).
SELECT
    date_trunc('day', date)::DATE AS day,
    count(*) AS flights,
    round(avg(delay), 2) AS mean_delay,
    quantile_disc(delay, 0.9) AS p90_delay,
    round(count(*) FILTER (WHERE delay >= 15) / count(*), 4) AS late_share
FROM flights
GROUP BY day
