package redis

import (
	"bufio"
	"io"
	"slices"
	"strconv"
	"strings"
)

// readValue reads a value of the Redis protocol, RESP2 or RESP3, or an inline command, and returns its bytes. On an error
// it returns what it has read.
func readValue(r *bufio.Reader) ([]byte, error) {
	var value []byte
	for missing := 1; missing > 0; missing-- {
		line, err := r.ReadBytes('\n')
		value = append(value, line...)
		if err != nil {
			return value, err
		}
		n, _ := strconv.Atoi(strings.TrimSpace(string(line[1:]))) // A length, or -1 for null, of the types below.
		switch line[0] {
		case '$', '=', '!': // a bulk string and a line end
			if n >= 0 {
				from := len(value)
				value = append(value, make([]byte, n+len("\r\n"))...)
				if _, err := io.ReadFull(r, value[from:]); err != nil {
					return value, err
				}
			}
		case '*', '~', '>': // array, set, push
			missing += max(n, 0)
		case '%': // map
			missing += 2 * n
		case '|': // attributes of the following value
			missing += 2*n + 1
		}
	}
	return value, nil
}

// commandName returns the first word of a request, in upper case.
func commandName(request []byte) string {
	lines := strings.SplitN(string(request), "\r\n", 4)
	if strings.HasPrefix(lines[0], "*") && len(lines) > 2 {
		return strings.ToUpper(lines[2])
	}
	inline, _, _ := strings.Cut(lines[0], " ")
	return strings.ToUpper(inline)
}

// isScript reports whether the command runs a script.
func isScript(command string) bool { return strings.HasPrefix(command, "EVAL") }

// startsStream reports whether the command switches the connection from replies to a stream.
func startsStream(command string) bool {
	return slices.Contains([]string{"PSYNC", "SYNC", "SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE", "MONITOR"}, command)
}

// isError reports whether a reply is an error.
func isError(reply []byte) bool { return reply[0] == '-' || reply[0] == '!' }

// isPush reports whether a value is a push message, which is no reply.
func isPush(value []byte) bool { return value[0] == '>' }
