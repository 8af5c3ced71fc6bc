// The job: it runs to its end, and its exit code says how it ended. What it logs are JSON objects, one a line.

import { work } from "./work.js";

function log(level, event, fields = {}) {
  console.log(JSON.stringify({ time: new Date().toISOString(), level, service: "new-service", event, ...fields }));
}

// As the first process of a container, Node.js would ignore the signal.
process.on("SIGTERM", () => process.exit(143));
try {
  log("info", "done", { count: await work() });
} catch (error) {
  log("error", "failed", { error: error.stack });
  process.exitCode = 1;
}
