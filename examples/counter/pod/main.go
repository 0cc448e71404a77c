// Command pod is a pod of a small stateful service. It counts the visits of the users that podlink has linked to it.
package main

import (
	"log"

	"podlink/examples/counter/store"
)

func main() {
	app, err := newApp(&counter{store: store.Store{Folder: "bin/visits"}, users: map[string]*user{}})
	if err == nil {
		err = app.Run()
	}
	if err != nil {
		log.Fatal(err) //nolint:forbidigo // Short is better in an example.
	}
}
