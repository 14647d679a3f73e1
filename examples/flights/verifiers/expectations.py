"""Expectations that are easier to say in Python."""

import headgate


@headgate.expectation()
def ranking_is_sorted(ranking=headgate.Model("route_ranking", columns=["position", "minutes_lost_per_100_miles"])):
    rows = sorted(
        zip(
            ranking["position"].to_pylist(),
            ranking["minutes_lost_per_100_miles"].to_pylist(),
        )
    )
    assert [p for p, _ in rows] == list(range(1, len(rows) + 1)), "positions have gaps"
    lost = [minutes for _, minutes in rows]
    assert lost == sorted(lost, reverse=True), "a worse route stands below a better one"
