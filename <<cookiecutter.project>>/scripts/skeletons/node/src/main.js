// Serves the service until SIGTERM. What it logs are JSON objects, one a line.

import { setTimeout as wait } from "node:timers/promises";
import { createService } from "./app.js";

const { PORT = "3000", BASE_PATH = "", DRAIN_SECONDS = "5", GRACE_SECONDS = "20" } = process.env;

function log(level, event, fields = {}) {
  console.log(JSON.stringify({ time: new Date().toISOString(), level, service: "new-service", event, ...fields }));
}

const service = createService({ basePath: BASE_PATH, log });

// The first signal lets traffic move away before the server closes; a second one skips that wait.
const skip = new AbortController();
let stopping = false;

async function stop() {
  if (stopping) return skip.abort();
  stopping = true;
  log("info", "draining", { seconds: Number(DRAIN_SECONDS) });
  service.drain();
  await wait(Number(DRAIN_SECONDS) * 1000, undefined, { signal: skip.signal }).catch(() => {});
  const cut = setTimeout(() => service.server.closeAllConnections(), Number(GRACE_SECONDS) * 1000);
  service.server.close(() => {
    clearTimeout(cut);
    log("info", "stopped");
    process.exit(0);
  });
  service.server.closeIdleConnections();
}

process.on("SIGTERM", stop);
process.on("SIGINT", stop);
service.server.listen(Number(PORT), () => log("info", "serving", { port: Number(PORT) }));
