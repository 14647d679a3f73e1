"""Written for pandas 2: DataFrame.map is new in pandas 2.1."""

import headgate
import pandas as pd


@headgate.model(name="busy_zones", key=["zone"])
@headgate.python(pip={"pandas": "2.2.3"})
def busy_zones(per_zone=headgate.Model("per_zone")):
    table = per_zone.to_pandas()
    busy = table.loc[table["trips"] > table["trips"].mean(), ["zone", "trips", "miles", "made_with"]].copy()
    busy["per_trip"] = (busy["miles"] / busy["trips"]).round(3)
    busy[["zone", "trips"]] = busy[["zone", "trips"]].map(int)
    busy["made_with"] = busy["made_with"] + ", then pandas " + pd.__version__
    return busy.sort_values("zone")
