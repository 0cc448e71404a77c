package redis

import (
	"bufio"
	"io"
	"slices"
	"strconv"
	"strings"
)

// readValue reads one value of the Redis protocol, version 2 or 3, and returns it as it was on the wire. What it can't
// read to its end it returns in part. An inline command is a value as well.
func readValue(r *bufio.Reader) ([]byte, error) {
	var value []byte
	for missing := 1; missing > 0; missing-- {
		line, err := r.ReadBytes('\n')
		value = append(value, line...)
		if err != nil {
			return value, err
		}
		n, _ := strconv.Atoi(strings.TrimSpace(string(line[1:]))) // Where it is a number, it is a length, or -1 for null.
		switch line[0] {
		case '$', '=', '!': // bytes and a line end
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
		case '|': // attributes of the value that follows
			missing += 2*n + 1
		}
	}
	return value, nil
}

// commandName is the first word of a request, in capitals.
func commandName(request []byte) string {
	lines := strings.SplitN(string(request), "\r\n", 4)
	if strings.HasPrefix(lines[0], "*") && len(lines) > 2 {
		return strings.ToUpper(lines[2])
	}
	inline, _, _ := strings.Cut(lines[0], " ")
	return strings.ToUpper(inline)
}

// isScript tells whether the command runs a script.
func isScript(command string) bool { return strings.HasPrefix(command, "EVAL") }

// startsStream tells whether the server sends, from this command on, what is no reply.
func startsStream(command string) bool {
	return slices.Contains([]string{"PSYNC", "SYNC", "SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE", "MONITOR"}, command)
}

// isError tells whether a reply is an error: the command was refused.
func isError(reply []byte) bool { return reply[0] == '-' || reply[0] == '!' }

// isPush tells whether the server sent it unasked.
func isPush(value []byte) bool { return value[0] == '>' }
