"""WSGI's reference server: python3 wsgi.py PORT"""

import sys
from wsgiref.simple_server import WSGIRequestHandler, make_server


class Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass


def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/admin" or path.startswith("/admin/"):
        body = b"protected handler"
    elif path.startswith("/public/"):
        body = b"public handler"
    else:
        body = b"other handler"
    start_response("200 OK", [("content-length", str(len(body)))])
    return [body]


make_server("127.0.0.1", int(sys.argv[1]), app, handler_class=Handler).serve_forever()
