// Go's net/http: main PORT
package main

import (
	"io"
	"log"
	"net/http"
	"os"
)

func says(text string) http.HandlerFunc {
	return func(response http.ResponseWriter, _ *http.Request) {
		io.WriteString(response, text)
	}
}

func main() {
	http.HandleFunc("/admin", says("protected handler"))
	http.HandleFunc("/admin/", says("protected handler"))
	http.HandleFunc("/public/", says("public handler"))
	http.HandleFunc("/", says("other handler"))
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Args[1], nil))
}
