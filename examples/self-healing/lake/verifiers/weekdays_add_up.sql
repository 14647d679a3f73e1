-- Each day of the week has exactly the flights of that day, Monday being 0.
SELECT
    coalesce(w.weekday, f.weekday) AS weekday,
    w.flights AS counted,
    f.flights AS flown
FROM delay_by_weekday w
FULL JOIN (SELECT isodow(date) - 1 AS weekday, count(*) AS flights FROM flights GROUP BY ALL) f
    ON f.weekday = w.weekday
WHERE w.flights IS DISTINCT FROM f.flights
