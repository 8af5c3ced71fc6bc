package main

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// service answers requests: its pages, its health, its metrics.
type service struct {
	basePath string // what public paths begin with, such as "/shop"; "" for a host name of its own
	log      *slog.Logger
	ready    func() error // fails when something that the service needs does not answer
	draining atomic.Bool
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
}

func newService(basePath string, log *slog.Logger) *service {
	made := &service{
		basePath: basePath,
		log:      log,
		ready:    func() error { return nil },
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(
			prometheus.CounterOpts{Name: "http_requests_total", Help: "Requests answered."},
			[]string{"method", "path", "code"},
		),
		duration: prometheus.NewHistogramVec(
			// 0.5 s is the limit of the stack's latency objective, so it has to be a bucket.
			prometheus.HistogramOpts{
				Name:    "http_request_duration_seconds",
				Help:    "Time from a request to the end of its answer.",
				Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
			},
			[]string{"method", "path"},
		),
	}
	made.registry.MustRegister(
		made.requests, made.duration,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return made
}

// drain makes readiness fail from now on; requests are still answered.
func (s *service) drain() { s.draining.Store(true) }

func (s *service) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health/live", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, map[string]string{"status": "alive"})
	})
	mux.HandleFunc("GET /health/ready", s.readiness)
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET "+s.basePath+"/{$}", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, map[string]string{"message": "new-service works"})
	})
	return s.observed(mux)
}

func (s *service) readiness(w http.ResponseWriter, _ *http.Request) {
	if s.draining.Load() {
		answer(w, http.StatusServiceUnavailable, map[string]string{"status": "draining"})
	} else if err := s.ready(); err != nil {
		answer(w, http.StatusServiceUnavailable, map[string]string{"status": "unready", "error": err.Error()})
	} else {
		answer(w, http.StatusOK, map[string]string{"status": "ready"})
	}
}

// observed counts and logs what the mux answers.
func (s *service) observed(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		started := time.Now()
		if s.draining.Load() {
			// Who keeps the connection open would not notice that another container serves now.
			w.Header().Set("Connection", "close")
		}
		seen := &recorder{ResponseWriter: w, code: http.StatusOK}
		mux.ServeHTTP(seen, r)
		// The pattern, never the path itself: a metric of every path would never end.
		path := strings.TrimSuffix(strings.TrimPrefix(r.Pattern, "GET "), "{$}")
		if path == "" {
			path = "other"
		}
		took := time.Since(started).Seconds()
		s.requests.WithLabelValues(r.Method, path, strconv.Itoa(seen.code)).Inc()
		s.duration.WithLabelValues(r.Method, path).Observe(took)
		if path != "/metrics" && !strings.HasPrefix(path, "/health") {
			s.log.Info("request", "method", r.Method, "path", r.URL.Path, "code", seen.code, "s", took,
				"request_id", r.Header.Get("X-Request-Id"))
		}
	})
}

// recorder keeps the status that was written.
type recorder struct {
	http.ResponseWriter
	code int
}

func (r *recorder) WriteHeader(code int) {
	r.code = code
	r.ResponseWriter.WriteHeader(code)
}

// Unwrap lets http.ResponseController reach what the server can do: flush a stream, take over a WebSocket.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

func answer(w http.ResponseWriter, code int, content any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(content) // who asked has gone
}
