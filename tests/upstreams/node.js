// Node's `http` with the URL parser: node node.js PORT
const http = require("node:http");

function handler(url) {
  let path;
  try {
    path = decodeURIComponent(new URL(url, "http://upstream.test").pathname);
  } catch {
    return "other handler";
  }
  if (path === "/admin" || path.startsWith("/admin/")) return "protected handler";
  if (path.startsWith("/public/")) return "public handler";
  return "other handler";
}

http
  .createServer((request, response) => response.end(handler(request.url)))
  .listen(Number(process.argv[2]), "127.0.0.1");
