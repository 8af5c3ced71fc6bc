-- Which containers are jobs: those of this project with the label ops.schedule. The engine itself is asked, so no list can be out of date.

local socket = "unix@/run/engine.sock"
local labels = string.format(
    '"label":["com.docker.compose.project=%s","com.docker.compose.oneoff=False","ops.schedule"]',
    os.getenv("PROJECT")
)

local function query(filters)
    local encoded = string.gsub("{" .. filters .. "}", "[^%w]", function(character)
        return string.format("%%%02X", string.byte(character))
    end)
    return "all=1&filters=" .. encoded
end

-- What to ask the engine for all jobs.
core.register_fetches("jobs", function()
    return query(labels)
end)

-- Sets txn.is_job: whether the container whose id is txn.id, 64 hexadecimal digits, is a job.
core.register_action("is_job", { "http-req" }, function(txn)
    local id = txn:get_var("txn.id")
    local answer = core.httpclient():get({
        url = "http://engine/v1.44/containers/json?" .. query(string.format('"id":["%s"],%s', id, labels)),
        dst = socket,
        timeout = 5000,
    })
    local found = answer.status == 200 and string.find(answer.body, '"Id":"' .. id .. '"', 1, true)
    txn:set_var("txn.is_job", found ~= nil and found ~= false)
end)
