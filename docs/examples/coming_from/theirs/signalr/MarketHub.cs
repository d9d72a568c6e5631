// A hub of ASP.NET Core SignalR.
using System.Runtime.CompilerServices;
using Microsoft.AspNetCore.SignalR;

public record Tick(string Symbol, double Price);

// --- service
public class MarketHub : Hub
{
    static readonly Dictionary<string, double> Prices = new() { ["ACME"] = 101.5 };

    public double Price(string symbol) =>
        Prices.TryGetValue(symbol, out var price)
            ? price
            : throw new HubException($"there is no {symbol}");

    public async IAsyncEnumerable<Tick> Ticks(
        string symbol, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        try
        {
            for (var price = 100.0; ; price++)
            {
                yield return new Tick(symbol, price);
                await Task.Delay(10, cancellationToken);
            }
        }
        finally
        {
            Console.WriteLine("server: the feed is closed");
        }
    }

    public async Task<int> Ingest(IAsyncEnumerable<Tick> ticks)
    {
        var count = 0;
        await foreach (var _ in ticks) count++;
        return count;
    }

    public async IAsyncEnumerable<string> Chat(IAsyncEnumerable<string> inbox)
    {
        var user = Context.UserIdentifier;
        await foreach (var text in inbox) yield return $"{user}: {text}";
    }

    public async Task<string> Sell(string order)
    {
        var ended = Context.ConnectionAborted;
        var agreed = await Clients.Caller.InvokeAsync<bool>("Agree", order, ended);
        return agreed ? "sold" : "kept";
    }

    public Task Report() => Task.Delay(TimeSpan.FromHours(1), Context.ConnectionAborted);
}
