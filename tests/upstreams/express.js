// Express, with its default settings: node express.js PORT
const express = require("express");

const app = express();
const says = (text) => (_, response) => response.send(text);
app.use("/admin", says("protected handler"));
app.use("/public", says("public handler"));
app.use(says("other handler"));
app.listen(Number(process.argv[2]), "127.0.0.1");
