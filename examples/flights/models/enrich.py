"""Routes with what the map says about them."""

import math

import headgate
import pyarrow as pa

EARTH_RADIUS_MILES = 3958.8


def great_circle_miles(a, b):
    """Returns the distance in miles between two (latitude, longitude) pairs in degrees."""
    lat_a, lon_a, lat_b, lon_b = map(math.radians, (*a, *b))
    h = (
        math.sin((lat_b - lat_a) / 2) ** 2
        + math.cos(lat_a) * math.cos(lat_b) * math.sin((lon_b - lon_a) / 2) ** 2
    )
    return 2 * EARTH_RADIUS_MILES * math.asin(math.sqrt(h))


@headgate.model(name="routes", key=["origin", "destination"])
def routes(
    stats=headgate.Model("route_stats"),
    airports=headgate.Model("airports", columns=["iata", "latitude", "longitude"]),
):
    where = {
        iata: (lat, lon)
        for iata, lat, lon in zip(
            airports["iata"].to_pylist(),
            airports["latitude"].to_pylist(),
            airports["longitude"].to_pylist(),
        )
    }
    miles = [
        round(great_circle_miles(where[o], where[d]), 1)
        for o, d in zip(stats["origin"].to_pylist(), stats["destination"].to_pylist())
    ]
    return stats.append_column("great_circle_miles", pa.array(miles, pa.float64()))
