# SPDX-License-Identifier: Apache-2.0
"""app.py NAME {"http": PORT, "tcp": PORT}: an application of the mesh. HTTP answers who it is and what it was asked; TCP sends lines back with its name.
/status/N answers N; names of ports that begin with http speak HTTP."""

import http.server
import json
import socketserver
import sys
import threading


class Http(http.server.BaseHTTPRequestHandler):
    protocol_version, wbufsize, disable_nagle_algorithm = "HTTP/1.1", 65536, True

    def do_GET(self):
        length = int(self.headers.get("content-length") or 0)
        asked = self.rfile.read(length)
        status = int(self.path.split("/")[2]) if self.path.startswith("/status/") else 200
        body = json.dumps({"pod": sys.argv[1], "path": self.path, "method": self.command, "headers": {k.lower(): v for k, v in self.headers.items()},
                           "peer": self.client_address[0], "body": len(asked)}).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.send_header("content-type", "application/json")
        self.send_header("x-allowed-by", sys.argv[1])
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_PUT = do_DELETE = do_GET

    def log_message(self, *args):
        pass


class Tcp(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(sys.argv[1].encode() + b" " + line)


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True
    request_queue_size = 128


def main():
    for name, port in json.loads(sys.argv[2]).items():
        server = Server(("0.0.0.0", port), Http if name.startswith("http") else Tcp)
        threading.Thread(target=server.serve_forever).start()


main()
