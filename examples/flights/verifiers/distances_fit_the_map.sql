-- Nobody flies shorter than the great circle, and the Bureau's distance is
-- never far above it. The margins allow for rounding and for city centres.
SELECT origin, destination, miles, great_circle_miles
FROM routes
WHERE abs(miles - great_circle_miles) > greatest(10, 0.05 * great_circle_miles)
