import assert from "node:assert/strict";
import { test } from "node:test";
import { work } from "../src/work.js";

test("it says how many things it did", async () => {
  assert.equal(await work(), 0);
});
