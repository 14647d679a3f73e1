-- A verifier is a SELECT of the rows that must not be. No rows: it passes.
SELECT day, following
FROM (SELECT day, lead(day) OVER (ORDER BY day) AS following FROM calendar)
WHERE following <> day + 1
