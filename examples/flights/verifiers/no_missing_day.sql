-- Between the first day and the last, every day is there.
WITH days AS (
    SELECT unnest(generate_series(min(day), max(day), INTERVAL 1 DAY))::DATE AS day
    FROM daily_delay
)
SELECT day FROM days ANTI JOIN daily_delay USING (day)
