// An upstream that prints one line per received request; some paths misbehave.
const http = require("node:http");

const PIECE = Buffer.alloc(1 << 16);
const RAW = {
  half: "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf",
  chunk: "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
  garbage: "\0\x01\x02 what is this\r\n\r\n",
  head: "HTTP/1.1 200 OK\r\nx-big: " + "a".repeat(10 << 20) + "\r\n\r\n",
  early: "",
  open: "HTTP/1.1 200 OK\r\n\r\nuntil the end",
};
let waiting = [];

function send(response, left) {
  while (left > 0) {
    left -= PIECE.length;
    if (!response.write(PIECE)) {
      response.once("drain", () => send(response, left));
      return;
    }
  }
  response.end();
}

const own = {
  "/events": (request, response) => {
    response.writeHead(200, { "content-type": "text/event-stream" });
    response.write("data: one\n\n");
    waiting.push(() => response.end("data: two\n\n"));
    response.on("close", () => console.log("ENDED /events"));
  },
  "/go": (request, response) => {
    for (const one of waiting) one();
    waiting = [];
    response.end("went");
  },
  "/trailers": (request, response) => {
    request.resume().on("end", () => {
      response.writeHead(200, { trailer: "x-sum" });
      response.write("body");
      response.addTrailers({ "x-sum": request.trailers["asked"] || "none" });
      response.end();
    });
  },
  "/hints": (request, response) => {
    response.writeEarlyHints({ link: "</style.css>; rel=preload" }, () =>
      response.end("hinted"),
    );
  },
  "/early": (request, response) => {
    response.writeHead(413, { "content-length": 3 });
    response.end("big");
  },
  "/big": (request, response) => {
    const size = Number(new URL(request.url, "http://a").searchParams.get("size"));
    response.writeHead(200, { "content-length": size });
    send(response, size);
  },
  "/never": () => {},
};

http
  .createServer((request, response) => {
    const path = request.url.split("?")[0];
    if (path.startsWith("/raw/")) {
      request.socket.end(RAW[path.slice(5)], "latin1");
      return;
    }
    if (own[path]) {
      own[path](request, response);
      return;
    }
    let size = 0;
    request.on("data", (piece) => (size += piece.length));
    request.on("end", () => {
      console.log(`SAW ${request.method} ${request.url} ${size}`);
      response.end(path === "/count" ? String(size) : "ok");
    });
  })
  .listen(Number(process.argv[2]), "127.0.0.1");
