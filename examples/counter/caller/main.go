// Command caller reads a user's id from each line of its input, and visits the counter for them.
package main

import (
	"bufio"
	"context"
	"fmt"
	"log"
	"os"

	"github.com/go-kratos/kratos/v2/errors"

	counterv1 "podlink/examples/counter/api/counter/v1"
)

func main() {
	conn, err := dial()
	if err != nil {
		log.Fatal(err) //nolint:forbidigo // Short is better in an example.
	}
	counter := counterv1.NewCounterServiceClient(conn)
	for users := bufio.NewScanner(os.Stdin); users.Scan(); {
		reply, err := counter.Visit(context.Background(), &counterv1.VisitRequest{Uid: users.Text()})
		if err != nil {
			fmt.Printf("%s: %s\n", users.Text(), errors.Reason(err))
			continue
		}
		fmt.Printf("%s: visit %d, on pod %d\n", users.Text(), reply.GetVisits(), reply.GetPodId())
	}
}
