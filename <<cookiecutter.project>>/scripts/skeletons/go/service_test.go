package main

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func started(t *testing.T) (*service, func(path string) (int, string)) {
	t.Helper()
	made := newService("/base", slog.New(slog.NewJSONHandler(io.Discard, nil)))
	server := httptest.NewServer(made.handler())
	t.Cleanup(server.Close)
	return made, func(path string) (int, string) {
		answer, err := http.Get(server.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		body, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		return answer.StatusCode, string(body)
	}
}

func TestItsPageIsBelowItsBasePath(t *testing.T) {
	_, get := started(t)
	for path, wanted := range map[string]int{"/base/": 200, "/base/x": 404, "/elsewhere": 404} {
		if code, _ := get(path); code != wanted {
			t.Errorf("%s answers %d, not %d", path, code, wanted)
		}
	}
}

func TestItIsReadyWhenWhatItNeedsAnswers(t *testing.T) {
	made, get := started(t)
	if code, _ := get("/health/ready"); code != 200 {
		t.Errorf("not ready: %d", code)
	}
	made.ready = func() error { return errors.New("the database is away") }
	if code, body := get("/health/ready"); code != 503 || !strings.Contains(body, "the database is away") {
		t.Errorf("%d %s", code, body)
	}
	if code, _ := get("/health/live"); code != 200 {
		t.Errorf("not alive: %d", code)
	}
}

func TestRequestsAreCounted(t *testing.T) {
	_, get := started(t)
	get("/base/")
	_, text := get("/metrics")
	for _, line := range []string{
		`http_requests_total{code="200",method="GET",path="/base/"} 1`,
		`http_request_duration_seconds_bucket{method="GET",path="/base/",le="0.5"} 1`,
	} {
		if !strings.Contains(text, line) {
			t.Errorf("no %s", line)
		}
	}
}

func TestWhileItDrainsItAnswersAndIsNotReady(t *testing.T) {
	made, get := started(t)
	made.drain()
	if code, _ := get("/health/ready"); code != 503 {
		t.Errorf("ready: %d", code)
	}
	if code, _ := get("/base/"); code != 200 {
		t.Errorf("no answer: %d", code)
	}
}
