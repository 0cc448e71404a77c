-- terms.lua declares the terms of a new link, which bind.lua applies. A script that has them sets them.

local claimant -- the generation of the process that claims the link; nil: none
local renewed -- whether the same pod is a new owner, because another process of it claims the link
local above -- an epoch that a new one must exceed; nil: none
