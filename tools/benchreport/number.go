package main

import (
	"math"
	"strconv"
	"strings"
)

// number formats a figure for readers: 1,234; 123; 12.3; 1.23; 0.97; 0.042. Integers keep all digits; others get three significant
// digits, or two below 1. No measurement is more precise than that.
func number(v float64) string { return fixed(v, decimals(v)) }

// numberBeside formats a figure that is shown next to its limit, with enough digits to tell them apart.
func numberBeside(v, limit float64) string {
	digits := decimals(v)
	for v != limit && round(v, digits) == limit {
		digits++
	}
	return fixed(v, digits)
}

// decimals returns the number of decimals with which a figure is shown.
func decimals(v float64) int {
	if v == math.Trunc(v) {
		return 0
	}
	magnitude := int(math.Floor(math.Log10(math.Abs(v)))) // 0 from 1 to below 10
	if magnitude < 0 {
		return 1 - magnitude
	}
	return max(0, 2-magnitude)
}

func round(v float64, decimals int) float64 {
	shift := math.Pow10(decimals)
	return math.Round(v*shift) / shift
}

// fixed formats a number with that many decimals and thousands separators.
func fixed(v float64, decimals int) string {
	text := strconv.FormatFloat(v, 'f', decimals, 64)
	end := len(text)
	if point := strings.IndexByte(text, '.'); point >= 0 {
		end = point
	}
	for at := end - 3; at > 0 && text[at-1] != '-'; at -= 3 {
		text = text[:at] + "," + text[at:]
	}
	return text
}

// plain formats a number with at most that many decimals, without trailing zeros.
func plain(v float64, decimals int) string {
	return strconv.FormatFloat(round(v, decimals), 'f', -1, 64)
}

// short formats a number for an axis: 0.5, 256, 1,024, 1k, 31.25k, 5M, 2G.
func short(v float64) string {
	switch thousands := v / 1e3; {
	case v >= 1e9:
		return plain(v/1e9, 2) + "G"
	case v >= 1e6:
		return plain(v/1e6, 2) + "M"
	case v >= 1e4, v >= 1e3 && thousands == math.Trunc(thousands):
		return plain(thousands, 2) + "k"
	case v == math.Trunc(v):
		return number(v)
	default:
		return plain(v, 4)
	}
}
