SELECT flight_id, date, origin, destination FROM flights WHERE origin = destination
