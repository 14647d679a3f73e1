"""Written for pandas 1: DataFrame.append is gone since pandas 2."""

import warnings

import headgate
import pandas as pd

# That it will be gone is what pandas 1.5 says at each call.
warnings.simplefilter("ignore", FutureWarning)


@headgate.model(name="per_zone", key=["zone"])
@headgate.python(pip={"pandas": "1.5.3"})
def per_zone(trips=headgate.Model("trips")):
    table = trips.to_pandas()
    result = pd.DataFrame(columns=["zone", "trips", "miles"])
    for zone, rows in table.groupby("zone"):
        result = result.append({"zone": zone, "trips": len(rows), "miles": round(rows["miles"].sum(), 1)}, ignore_index=True)
    result = result.astype({"zone": "int64", "trips": "int64", "miles": "float64"})
    result["made_with"] = "pandas " + pd.__version__
    return result
