-- History only grows: a flight that main has once published stays.
SELECT * FROM base.flights ANTI JOIN flights USING (flight_id)
