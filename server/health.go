package server

import (
	"io"
	"net/http"
)

// HTTPHandler answers GET /healthz: 200 when the server takes connections, 503
// while it starts or drains.
func (s *Server) HTTPHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		state := s.state()
		if state != ready {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_, _ = io.WriteString(w, state.String()+"\n") // the prober has gone; nothing to do
	})
	return mux
}
