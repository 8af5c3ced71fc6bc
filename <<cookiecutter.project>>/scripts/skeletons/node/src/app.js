// The service: its pages, its health, its metrics. main.js serves it.

import { createServer } from "node:http";
import client from "prom-client";

const ID = /^[A-Za-z0-9._-]{1,128}$/;

/**
 * An HTTP server that does not listen yet.
 *
 * basePath: what public paths begin with, such as "/shop"; "" for a host name of its own.
 * ready: throws, or rejects, when something that the service needs does not answer.
 * log: called with a level, a message and fields.
 */
export function createService({ basePath = "", ready = async () => {}, log = () => {} } = {}) {
  const registry = new client.Registry();
  client.collectDefaultMetrics({ register: registry });
  const requests = new client.Counter({
    name: "http_requests_total",
    help: "Requests answered.",
    labelNames: ["method", "path", "code"],
    registers: [registry],
  });
  // 0.5 s is the limit of the stack's latency objective, so it has to be a bucket.
  const duration = new client.Histogram({
    name: "http_request_duration_seconds",
    help: "Time from a request to the end of its answer.",
    labelNames: ["method", "path"],
    buckets: [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30],
    registers: [registry],
  });
  let draining = false;

  // By method and path. A path with a variable part counts under a name of its own: a metric of every path would never end.
  const routes = {
    "GET /health/live": async () => json(200, { status: "alive" }),
    "GET /health/ready": async () => {
      if (draining) return json(503, { status: "draining" });
      try {
        await ready();
        return json(200, { status: "ready" });
      } catch (error) {
        return json(503, { status: "unready", error: String(error) });
      }
    },
    "GET /metrics": async () => ({ code: 200, type: registry.contentType, body: await registry.metrics() }),
    [`GET ${basePath}/`]: async () => json(200, { message: "new-service works" }),
  };

  async function answer(request, response) {
    const started = process.hrtime.bigint();
    const path = request.url.split("?", 1)[0];
    const method = request.method === "HEAD" ? "GET" : request.method;
    const known = routes[`${method} ${path}`];
    const given = request.headers["x-request-id"] ?? "";
    const requestId = ID.test(given) ? given : "";
    let result;
    try {
      result = known ? await known(request) : json(404, { error: "not found" });
    } catch (error) {
      log("error", "request failed", { request_id: requestId, error: error.stack });
      result = json(500, { error: "something went wrong on our side" });
    }
    response.writeHead(result.code, {
      "Content-Type": result.type,
      "Content-Length": Buffer.byteLength(result.body),
      // Who keeps the connection open would not notice that another container serves now.
      ...(draining ? { Connection: "close" } : {}),
    });
    response.end(request.method === "HEAD" ? "" : result.body);
    const seconds = Number(process.hrtime.bigint() - started) / 1e9;
    const label = known ? path : "other";
    requests.inc({ method: request.method, path: label, code: result.code });
    duration.observe({ method: request.method, path: label }, seconds);
    if (!path.startsWith("/health") && path !== "/metrics") {
      log("info", "request", { request_id: requestId, method: request.method, path, code: result.code, s: seconds });
    }
  }

  const server = createServer(answer);
  // Longer than the 60 s for which nginx and HAProxy keep idle connections, so that it is never the server that closes one.
  server.keepAliveTimeout = 75_000;
  return {
    server,
    /** Readiness fails from now on; requests are still answered. */
    drain() {
      draining = true;
    },
  };
}

function json(code, content) {
  return { code, type: "application/json", body: JSON.stringify(content) };
}
