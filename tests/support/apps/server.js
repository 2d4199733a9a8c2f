// An upstream that prints one line for each request it saw.
const http = require("node:http");

http
  .createServer((request, response) => {
    let size = 0;
    request.on("data", (piece) => (size += piece.length));
    request.on("end", () => {
      console.log(`SAW ${request.method} ${request.url} ${size}`);
      response.end("ok");
    });
  })
  .listen(Number(process.argv[2]), "127.0.0.1");
