"""Flask: gunicorn flask_app:app, and uvicorn flask_app:asgi"""

from a2wsgi import WSGIMiddleware
from flask import Flask

app = Flask(__name__)


@app.route("/admin/", defaults={"rest": ""})
@app.route("/admin/<path:rest>")
def protected(rest):
    return "protected handler"


@app.route("/public/<path:rest>")
def public(rest):
    return "public handler"


@app.errorhandler(404)
def other(_):
    return "other handler", 404


asgi = WSGIMiddleware(app)
