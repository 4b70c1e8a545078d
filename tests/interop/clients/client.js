// SPDX-License-Identifier: Apache-2.0
// client.js PLAIN_PORT TLS_PORT CA_FILE: Node's own HTTP/1.1, HTTP/2 and fetch against the proxy. Says "ok" at the end, or why not.
const fs = require("fs");
const http = require("http");
const http2 = require("http2");
const https = require("https");
const assert = require("assert");
const [plain, tls, caFile] = process.argv.slice(2);
const ca = fs.readFileSync(caFile);
const tlsOptions = { ca, checkServerIdentity: () => undefined }; // a SPIFFE certificate has no host name

function h1(module, port, options, body) {
  return new Promise((resolve, reject) => {
    const req = module.request({ host: "127.0.0.1", port, ...options }, (res) => {
      const parts = [];
      res.on("data", (d) => parts.push(d));
      res.on("end", () => resolve({ status: res.statusCode, headers: res.headers, trailers: res.trailers, body: Buffer.concat(parts) }));
      res.on("error", reject);
    });
    req.on("error", reject);
    req.end(body);
  });
}

function h2(session, headers, body) {
  return new Promise((resolve, reject) => {
    const s = session.request(headers, { endStream: body === undefined });
    let status;
    const parts = [];
    s.on("response", (h) => { status = h[":status"]; });
    s.on("data", (d) => parts.push(d));
    s.on("end", () => resolve({ status, body: Buffer.concat(parts) }));
    s.on("error", reject);
    if (body !== undefined) s.end(body);
  });
}

async function main() {
  const big = Buffer.alloc(1 << 20, "remora ");
  for (const [module, port, extra] of [[http, plain, {}], [https, tls, tlsOptions]]) {
    const agent = new module.Agent({ keepAlive: true, maxSockets: 4 });
    const all = await Promise.all(Array.from({ length: 100 }, (_, i) => h1(module, port, { agent, path: "/echo?" + i, ...extra })));
    assert(all.every((r) => r.status === 200), "100 requests on 4 connections");
    const up = await h1(module, port, { agent, method: "POST", path: "/echo", headers: { "transfer-encoding": "chunked" }, ...extra }, big);
    assert(up.body.equals(big), "1 MiB there and back, chunked");
    const wait = await h1(module, port, { agent, method: "PUT", path: "/echo", headers: { expect: "100-continue", "content-length": 4 }, ...extra }, "body");
    assert.strictEqual(wait.body.toString(), "body");
    agent.destroy();
  }
  for (const [url, options] of [[`http://127.0.0.1:${plain}`, {}], [`https://127.0.0.1:${tls}`, tlsOptions]]) {
    const session = http2.connect(url, options);
    await new Promise((resolve, reject) => { session.once("remoteSettings", resolve); session.once("error", reject); });
    const all = await Promise.all(Array.from({ length: 100 }, (_, i) => h2(session, { ":path": "/echo?" + i })));
    assert(all.every((r) => r.status === 200), "100 streams at a time");
    const up = await h2(session, { ":path": "/echo", ":method": "POST" }, big);
    assert(up.body.equals(big), "1 MiB there and back over HTTP/2");
    await new Promise((resolve, reject) => session.ping((e) => (e ? reject(e) : resolve())));
    session.close();
  }
  const f = await fetch(`http://127.0.0.1:${plain}/echo`, { method: "POST", body: "hello" });
  assert.strictEqual(await f.text(), "hello");
  console.log("ok");
}

main().catch((e) => { console.log(e.stack || String(e)); process.exit(1); });
