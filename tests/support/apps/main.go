// An upstream that prints one line for each request it saw.
package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
)

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:"+os.Args[1])
	if err != nil {
		panic(err)
	}
	answer := func(w http.ResponseWriter, r *http.Request) {
		size, _ := io.Copy(io.Discard, r.Body)
		fmt.Printf("SAW %s %s %d\n", r.Method, r.RequestURI, size)
		fmt.Fprint(w, "ok")
	}
	panic(http.Serve(listener, http.HandlerFunc(answer)))
}
