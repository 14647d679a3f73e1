package spelling

import "testing"

func TestNearest(t *testing.T) {
	known := []string{"airports", "flights", "daily_delay"}
	for name, want := range map[string]string{"flihgts": "flights", "flight": "flights", "FLIGTHS": "flights", "daily_dealy": "daily_delay", "weather": "", "x": "", "": ""} {
		if have := Nearest(name, known); have != want {
			t.Errorf("Nearest(%q) = %q, want %q", name, have, want)
		}
	}
	if have := MeantOr("fligths", known); have != ` (did you mean "flights"?)` {
		t.Errorf("MeantOr says %q", have)
	}
	if have := MeantOr("weather", known); have != " (there are airports, flights, daily_delay)" {
		t.Errorf("MeantOr says %q", have)
	}
}
