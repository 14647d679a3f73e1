"""How late flights are on each day of the week. Written for pandas 1."""

import headgate
import pandas as pd


@headgate.model(name="delay_by_weekday", key=["weekday"])
@headgate.python(pip={"pandas": "1.5.3", "numpy": "1.26.4", "pyarrow": "17.0.0"})
def delay_by_weekday(flights=headgate.Model("flights", columns=["date", "delay"])):
    table = flights.to_pandas()
    result = pd.DataFrame(columns=["weekday", "flights", "mean_delay"])
    for weekday, rows in table.groupby(table["date"].dt.dayofweek):
        day = {"weekday": weekday, "flights": len(rows), "mean_delay": round(rows["delay"].mean(), 2)}
        result = result.append(day, ignore_index=True)
    return result.astype({"weekday": "int64", "flights": "int64", "mean_delay": "float64"})
