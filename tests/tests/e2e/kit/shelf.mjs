// The participant of shelf.rs behind HTTP. Arguments: the planted bug, and the file of its state.
import { createServer } from "node:http";
import { renameSync, writeFileSync } from "node:fs";

const [bug, file] = process.argv.slice(2);
const LATE_MS = 60;
const taken = new Set();
const putBack = new Set();
let articles = 1_000_000;

function write() {
  writeFileSync(`${file}.new`, JSON.stringify({ articles }));
  renameSync(`${file}.new`, file);
}

function takeNow(key, count) {
  const mayAct = !putBack.has(key) || bug === "acts-after-undo";
  const isNew = !taken.has(key) || bug === "not-idempotent";
  taken.add(key);
  if (mayAct && isNew) articles -= count;
  write();
}

function take(key, count) {
  if (putBack.has(key) && bug !== "acts-after-undo") return 409;
  if (bug === "answers-early") setTimeout(() => takeNow(key, count), LATE_MS);
  else takeNow(key, count);
  return 200;
}

function put(key, count) {
  if (bug === "refuses-to-undo") return 409;
  const wasTaken = taken.has(key) || bug === "undoes-what-was-not-done";
  if (!putBack.has(key) && wasTaken) articles += count;
  putBack.add(key);
  write();
  return 200;
}

const server = createServer((request, response) => {
  let body = "";
  request.on("data", (piece) => (body += piece));
  request.on("end", () => {
    const headers = request.headers;
    const undoes = headers["saga-action-key"];
    const count = JSON.parse(body);
    const status = undoes ? put(undoes, count) : take(headers["idempotency-key"], count);
    response.writeHead(status).end();
  });
});
write();
server.listen(0, "127.0.0.1", () => console.log(`port ${server.address().port}`));
