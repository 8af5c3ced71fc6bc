import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { createService } from "../src/app.js";

let broken = false;
const service = createService({
  basePath: "/base",
  ready: async () => {
    if (broken) throw new Error("the database is away");
  },
});
let url;

before(async () => {
  await new Promise((resolve) => service.server.listen(0, "127.0.0.1", resolve));
  url = `http://127.0.0.1:${service.server.address().port}`;
});
after(() => {
  service.server.close();
  service.server.closeAllConnections();
});

test("its page is below its base path", async () => {
  assert.equal((await fetch(`${url}/base/`)).status, 200);
  assert.equal((await fetch(`${url}/elsewhere`)).status, 404);
});

test("it is ready when what it needs answers", async () => {
  assert.equal((await fetch(`${url}/health/ready`)).status, 200);
  broken = true;
  const answer = await fetch(`${url}/health/ready`);
  assert.equal(answer.status, 503);
  assert.match(await answer.text(), /the database is away/);
  assert.equal((await fetch(`${url}/health/live`)).status, 200);
  broken = false;
});

test("requests are counted", async () => {
  const text = await (await fetch(`${url}/metrics`)).text();
  assert.match(text, /http_requests_total\{method="GET",path="\/base\/",code="200"\} 1/);
  assert.match(text, /http_request_duration_seconds_bucket\{le="0.5",method="GET",path="\/base\/"\} 1/);
});

test("while it drains it answers, and is not ready", async () => {
  service.drain();
  assert.equal((await fetch(`${url}/health/ready`)).status, 503);
  const answer = await fetch(`${url}/base/`);
  assert.equal(answer.status, 200);
  assert.equal(answer.headers.get("connection"), "close");
});
