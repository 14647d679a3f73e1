-- headgate: key=[position]
-- The busy routes, worst first: minutes lost for each hundred miles flown.
-- The pair of airports breaks ties, so that a position is never shared.
WITH busy AS (
    SELECT
        origin,
        destination,
        flights,
        mean_delay,
        round(100.0 * minutes_lost / (flights * miles), 3) AS minutes_lost_per_100_miles
    FROM routes
    WHERE flights >= 100
)
SELECT
    row_number() OVER (ORDER BY minutes_lost_per_100_miles DESC, origin, destination) AS position,
    b.origin,
    o.city AS origin_city,
    b.destination,
    d.city AS destination_city,
    b.flights,
    b.mean_delay,
    b.minutes_lost_per_100_miles
FROM busy b
JOIN airports o ON o.iata = b.origin
JOIN airports d ON d.iata = b.destination
