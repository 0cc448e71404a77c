package auth

// rights is a set of rights.
type rights uint8

func setOf(list ...Right) rights {
	var set rights
	for _, right := range list {
		set |= 1 << right
	}
	return set
}

func (s rights) has(right Right) bool { return s&(1<<right) != 0 }

// role is what a rule of the policy grants.
type role struct {
	rights rights
	pod    bool // to a pod, for itself: reports of its ordinal, and changes of its links
	admin  bool // also on the admin listener
}

// roles has the roles by their name in policies.
var roles = map[string]role{
	"reader":   {rights: setOf(Read)},
	"caller":   {rights: setOf(Read, Place)},
	"binder":   {rights: setOf(Read, Place, Bind)},
	"pod":      {rights: setOf(Read, Place, Bind, Report), pod: true},
	"operator": {rights: setOf(Read, Place, Bind, Report, Operate, Force)},
	"admin":    {rights: setOf(Read, Place, Bind, Report, Operate, Force), admin: true},
}
