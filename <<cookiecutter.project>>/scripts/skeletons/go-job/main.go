// Command newservice is a job: it runs to its end, and its exit code says how it ended. What it logs are JSON objects, one a line.
package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
)

// work is what the job does. It returns how many things it did, and stops when the context ends.
func work(context.Context) (int, error) {
	return 0, nil
}

func main() {
	log := slog.New(slog.NewJSONHandler(os.Stdout, nil)).With("service", "new-service")
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	count, err := work(ctx)
	if err != nil {
		log.Error("failed", "error", err.Error())
		os.Exit(1)
	}
	log.Info("done", "count", count)
}
