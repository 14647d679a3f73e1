SELECT sensor, count(*) AS days, round(avg(celsius), 2) AS mean_celsius
FROM readings
GROUP BY sensor
