// Command newservice serves until SIGTERM. What it logs are JSON objects, one a line.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

// setting returns an environment variable, or a default when it is not set or empty.
func setting(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

// seconds returns a setting that is a number of seconds.
func seconds(name, otherwise string) (time.Duration, error) {
	number, err := strconv.ParseFloat(setting(name, otherwise), 64)
	if err != nil || number < 0 {
		return 0, fmt.Errorf("%s must be a number of seconds, not %q", name, os.Getenv(name))
	}
	return time.Duration(number * float64(time.Second)), nil
}

// healthy asks the running service whether it is ready: the health check of an image that has no shell.
func healthy(port string) error {
	client := http.Client{Timeout: 4 * time.Second}
	answer, err := client.Get("http://" + net.JoinHostPort("127.0.0.1", port) + "/health/ready")
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return errors.New(answer.Status)
	}
	return nil
}

func serve(log *slog.Logger, port string) error {
	drain, err := seconds("DRAIN_SECONDS", "5")
	if err != nil {
		return err
	}
	grace, err := seconds("GRACE_SECONDS", "20")
	if err != nil {
		return err
	}
	service := newService(os.Getenv("BASE_PATH"), log)
	server := &http.Server{
		Addr:    ":" + port,
		Handler: service.handler(),
		// Longer than the 60 s for which nginx and HAProxy keep idle connections, so that it is never the server that closes one.
		IdleTimeout:       75 * time.Second,
		ReadHeaderTimeout: 15 * time.Second,
	}
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	failed := make(chan error, 1)
	go func() { failed <- server.ListenAndServe() }()
	log.Info("serving", "port", port)

	select {
	case err := <-failed:
		return err
	case <-signals:
	}
	// The first signal lets traffic move away before the server closes; a second one skips that wait.
	log.Info("draining", "seconds", drain.Seconds())
	service.drain()
	select {
	case <-time.After(drain):
	case <-signals:
	}
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil {
		log.Warn("requests were cut", "error", err.Error())
		return server.Close()
	}
	log.Info("stopped")
	return nil
}

func main() {
	log := slog.New(slog.NewJSONHandler(os.Stdout, nil)).With("service", "new-service")
	port := setting("PORT", "8080")
	if len(os.Args) > 1 && os.Args[1] == "healthy" {
		if err := healthy(port); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		return
	}
	if err := serve(log, port); err != nil {
		log.Error("failed", "error", err.Error())
		os.Exit(1)
	}
}
